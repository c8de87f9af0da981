"""What the service knows of its users: what they sent, kept on disk or in Redis, shared between replicas."""
