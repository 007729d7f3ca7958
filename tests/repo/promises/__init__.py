"""What this repository promises about itself: each promise is a function of the repository's root that answers what breaks it."""
