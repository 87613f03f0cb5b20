"""The contract of the logs: their columns, `schema.json`, rows made requests, features encoded."""
