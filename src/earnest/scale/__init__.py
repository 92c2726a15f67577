"""Many machines: data through Ray Data. Training goes through torchrun (see `earnest.training`)."""
