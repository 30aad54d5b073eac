"""What may be wrong with an installation, found without trusting any part of it."""
