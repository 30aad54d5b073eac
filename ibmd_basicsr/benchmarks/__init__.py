"""What ``python -m ibmd_basicsr.bench`` measures: training and sampling against their bare network passes, peers, data, memory."""
