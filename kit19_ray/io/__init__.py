"""Storage behind file:// and s3:// URIs, and the connections to S3."""
