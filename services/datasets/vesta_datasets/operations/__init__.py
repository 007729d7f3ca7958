"""Long-running operations: imports, exports, and the retention of operations and archives."""
