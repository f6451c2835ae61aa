"""Create the bucket BUCKET unless it is there, as soon as the S3 server answers."""

import os
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ATTEMPTS, PAUSE = 60, 2.0  # two minutes


def main() -> None:
    """Wait for the server, then create the bucket; a bucket of our own that exists is fine."""
    s3, bucket = boto3.client("s3"), os.environ["BUCKET"]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if bucket not in [each["Name"] for each in s3.list_buckets()["Buckets"]]:
                s3.create_bucket(Bucket=bucket)
            print(f"s3://{bucket} is there")
            return
        except (BotoCoreError, ClientError) as error:
            if attempt == ATTEMPTS:
                raise
            print(f"not yet ({error}); trying again")
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
