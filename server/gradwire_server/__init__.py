"""The gradwire service: gRPC on one side, Ray on the other."""
