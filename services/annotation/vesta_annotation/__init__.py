"""The annotation service: distributes tasks to annotators, finds their consensus, and lets reviewers make the final decision."""
