"""What every room needs: configuration, command lines, errors, outputs, object storage, the start of Ray."""
