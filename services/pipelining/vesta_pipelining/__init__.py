"""The pipelining service: camera frames become observations, uncertain ones go to the experts."""
