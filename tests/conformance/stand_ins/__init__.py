"""Our own tests and tools where transformers' source distribution leaves out the modules that its tests import."""
