"""Text into documents, token ids, rows and batches; knows token ids only, never a model."""
