"""The annotation service: hands tasks to experts, finds their consensus, lets reviewers have the last word."""
