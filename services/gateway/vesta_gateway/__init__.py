"""The API gateway: REST and gRPC for clients, authentication, authorization, rate limits, the live event stream."""
