"""The portal: people, datasets, requests, jobs, releases. The only room with a database."""
