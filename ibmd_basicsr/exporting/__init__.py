"""Students for other programs: safetensors and ONNX files that say what they are."""
