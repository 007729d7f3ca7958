"""Long-running operations: imports and exports, and the deletion of what they leave."""
