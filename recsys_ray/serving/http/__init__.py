"""HTTP: the application, its endpoints, what comes in and what goes out."""
