"""A real Kubernetes on one machine for tests: its programs come out of a Go module and a wheel, and run as plain processes."""
