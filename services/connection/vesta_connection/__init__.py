"""The connection service: gets media in, safely, once, and remembers where they came from."""
