"""The one door: REST and gRPC for customers, authentication, rights, limits, the live event stream."""
