"""The model: named parts, speech encoder, adapter, splice and language model in one module."""
