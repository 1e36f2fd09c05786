"""The subset of S3 that digitalhub, boto3 and obstore need for files. Frozen: no feature is added without need."""
