"""Settings by the names that the data flow's users know."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from berny.runtime.files import Files
from berny.runtime.stage import EnvironmentSettings, KafkaSettings


class TopicSettings(KafkaSettings):
    """The topic, and brokers in place of the cluster's where some are given."""

    topic_name: str = "weather-api"
    bootstrap_servers: str = ""

    @model_validator(mode="before")
    @classmethod
    def _brokers(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = values.get("bootstrap_servers")
        return {**values, "kafka_bootstrap_servers": given} if given else values


class FolderSettings(EnvironmentSettings):
    """The directory in HDFS, and WebHDFS and another directory in place of the cluster's where some are given."""

    hdfs_web_url: str
    hdfs_user: str
    hdfs_url: str = ""
    """Of WebHDFS if it begins with ``http``; else the cluster's own address, which only programs in Java use."""
    hdfs_base_path: str = ""
    berny_raw_path: str = "/user/hdfs/weather"
    berny_raw_keep: str = ""
    """Retention of days, such as 730d."""

    def files(self) -> Files:
        """Return the files below the directory."""
        url = self.hdfs_url if self.hdfs_url.startswith("http") else self.hdfs_web_url
        return Files(url, self.hdfs_user, self.hdfs_base_path or self.berny_raw_path)

    @property
    def scheme(self) -> str:
        """What programs of Hadoop put before a path of the directory; nothing in the cluster's own HDFS."""
        return self.hdfs_url.replace("http", "webhdfs", 1).rstrip("/") if self.hdfs_url.startswith("http:") else ""
