"""A real Kubernetes on one machine for tests. Its programs are built from a Go module and a wheel, and run as plain processes."""
