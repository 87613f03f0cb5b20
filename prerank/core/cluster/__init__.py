"""Ray: how it is started and set, tasks that are tried again, and all that it does not document."""
