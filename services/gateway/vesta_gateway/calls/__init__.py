"""The one way of a call, through whichever door it came, on to the service behind."""
