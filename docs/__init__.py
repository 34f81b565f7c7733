"""The documents, and what renews the parts of them that follow from the code: `python -m docs.generate`."""
