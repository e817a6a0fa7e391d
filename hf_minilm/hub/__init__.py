"""Publishing: model cards written from what was measured, and folders that open where the package is not installed."""
