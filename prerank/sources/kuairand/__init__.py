"""KuaiRand-Pure made the logs of a cascade."""
