"""An object of S3 as a source of versions: its ETag identifies them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from berny.runtime.file_poller import Content
from berny.runtime.source import Refused, RetryLater, Unauthorized

PART_BYTES = 1 << 20
SAID_CHARACTERS = 300


class S3Object:
    """An object.

    Args:
        endpoint: the server's address, empty for Amazon's.
        region: its region.
        bucket: the bucket.
        key: the object's key.
        access_key: the id of the access key.
        secret_key: the key, which no message shows.

    Raises:
        Refused: no client can be made with these settings.
    """

    def __init__(self, endpoint: str, region: str, bucket: str, key: str, access_key: str, secret_key: str) -> None:
        self._where = {"Bucket": bucket, "Key": key}
        self._name = f"s3://{bucket}/{key}"
        # Retries are the poller's. Proxies, profiles and credentials of the environment are not used.
        config = Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 1},
            proxies={},
            s3={"addressing_style": "path" if endpoint else "auto"},
        )
        try:
            self._client: Any = boto3.session.Session().client(
                "s3",
                endpoint_url=endpoint or None,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise Refused(f"{self._name}: {error}. Correct CUSTOMERS_S3_ENDPOINT, run site.yml") from None

    def version(self) -> str:
        """Return the ETag, without quotes.

        Raises:
            Refused: a person has to act.
            RetryLater: the server fails, or there is no such object now.
        """
        head = self._call("head_object")
        etag = str(head.get("ETag", "")).strip('"')
        if not etag:
            raise RetryLater(f"{self._name}: the response has no ETag")
        return etag

    def content(self, version: str) -> Content:
        """Return the content of a version.

        Raises:
            Refused: a person has to act.
            RetryLater: the server fails, or the object is another one now.
        """
        found = self._call("get_object", IfMatch=f'"{version}"')
        if str(found.get("ETag", "")).strip('"') != version:
            raise RetryLater(f"{self._name}: the response is not of the version {version}")
        return Content(int(found["ContentLength"]), self._parts(found["Body"], int(found["ContentLength"])))

    def _parts(self, body: Any, size: int) -> Iterator[bytes]:
        came = 0
        try:
            for part in body.iter_chunks(PART_BYTES):
                came += len(part)
                yield part
        except (BotoCoreError, OSError) as error:
            raise RetryLater(f"{self._name} was cut short: {error}") from None
        finally:
            body.close()
        if came != size:
            raise RetryLater(f"{self._name} was cut short: {came} of {size} bytes")

    def _call(self, operation: str, **words: str) -> dict[str, Any]:
        try:
            return dict(getattr(self._client, operation)(**self._where, **words))
        except ClientError as error:
            raise self._refusal(error) from None
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise RetryLater(f"{self._name}: {str(error)[:SAID_CHARACTERS]}") from None

    def _refusal(self, error: ClientError) -> Exception:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        message = f"{self._name}: returned {status}: {str(error)[:SAID_CHARACTERS]}"
        if status in (401, 403):
            keys = "CUSTOMERS_S3_ACCESS_KEY or CUSTOMERS_S3_SECRET_KEY is wrong, or may not read the object"
            return Unauthorized(f"{message}. {keys}: correct it, run site.yml, then start the pipeline again")
        if status in (404, 408, 409, 412, 425, 429) or not 300 <= status < 500:
            return RetryLater(message)
        settings = "CUSTOMERS_S3_ENDPOINT, CUSTOMERS_S3_REGION, CUSTOMERS_S3_BUCKET and CUSTOMERS_S3_KEY"
        return Refused(f"{message}. Correct {settings}, run site.yml, then start the pipeline again")
