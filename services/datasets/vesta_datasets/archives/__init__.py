"""Archives in the field's formats, read and written, one module a layout."""
