"""The fields of operators' resources that the manifests use: a misspelt one is refused.

Their own schemas come with the operators, not with any package; these hold what their documents say
(CloudNativePG 1.2x, Strimzi's v1, the Prometheus operator's v1) of what is used here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Metadata(_Strict):
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)
    namespace: str | None = None
    labels: dict[str, str] = {}


class _Resource(_Strict):
    api_version: str
    kind: str
    metadata: _Metadata


class _Selector(_Strict):
    match_labels: dict[str, str] = {}
    match_expressions: list[dict[str, Any]] = []


class _Named(_Strict):
    name: str


class _Resources(_Strict):
    requests: dict[Literal["cpu", "memory"], str]
    limits: dict[Literal["cpu", "memory"], str]


# Prometheus ---------------------------------------------------------------------------------------


class _Endpoint(_Strict):
    port: str
    path: str
    interval: str
    scrape_timeout: str
    honor_labels: bool


class _ScrapeSpec(_Strict):
    selector: _Selector
    endpoints: list[_Endpoint] = Field(min_length=1)


class ServiceMonitor(_Resource):
    """What the Prometheus operator scrapes."""

    api_version: Literal["monitoring.coreos.com/v1"]
    spec: _ScrapeSpec


_Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h|d))+$")]


class _Rule(_Strict):
    expr: str
    alert: str | None = None
    record: str | None = None
    for_: _Duration | None = Field(default=None, alias="for")
    keep_firing_for: _Duration | None = Field(default=None, alias="keep_firing_for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Group(_Strict):
    name: str
    interval: _Duration | None = None
    rules: list[_Rule]


class _Groups(_Strict):
    groups: list[_Group]


class PrometheusRule(_Resource):
    """Rules as the Prometheus operator takes them."""

    api_version: Literal["monitoring.coreos.com/v1"]
    spec: _Groups


# Strimzi ------------------------------------------------------------------------------------------


class _OfStrimzi(_Resource):
    api_version: Literal["kafka.strimzi.io/v1"]


class _TopicSettings(_Strict):
    cleanup_policy: Literal["compact", "delete"] = Field(alias="cleanup.policy")
    retention_ms: int = Field(alias="retention.ms")


class _Topic(_Strict):
    partitions: int = Field(ge=1)
    replicas: int = Field(ge=1)
    config: _TopicSettings


class KafkaTopic(_OfStrimzi):
    """A topic."""

    spec: _Topic


class _Authentication(_Strict):
    type: Literal["scram-sha-512"]


class _User(_Strict):
    authentication: _Authentication


class KafkaUser(_OfStrimzi):
    """An account of the brokers; its Secret has the same name."""

    spec: _User


class _Volume(_Strict):
    id: int
    type: Literal["persistent-claim"]
    size: str
    kraft_metadata: Literal["shared"]
    delete_claim: bool


class _Storage(_Strict):
    type: Literal["jbod"]
    volumes: list[_Volume]


class _Pool(_Strict):
    replicas: int
    roles: list[Literal["controller", "broker"]]
    storage: _Storage
    resources: _Resources


class KafkaNodePool(_OfStrimzi):
    """Brokers and controllers."""

    spec: _Pool


class _Listener(_Strict):
    name: str
    port: int
    type: Literal["internal"]
    tls: bool
    authentication: _Authentication
    network_policy_peers: list[dict[str, Any]]


class _Brokers(_Strict):
    listeners: list[_Listener]
    config: dict[str, int | bool | str]


class _Entities(_Strict):
    topic_operator: dict[str, Any]
    user_operator: dict[str, Any]


class _Cluster(_Strict):
    kafka: _Brokers
    entity_operator: _Entities


class Kafka(_OfStrimzi):
    """A cluster of brokers."""

    spec: _Cluster


# CloudNativePG ------------------------------------------------------------------------------------


class _Synchronous(_Strict):
    method: Literal["any", "first"]
    number: int


class _Postgres(_Strict):
    synchronous: _Synchronous
    parameters: dict[str, str]


class _First(_Strict):
    database: str
    owner: str
    secret: _Named
    post_init_application_sql: list[str] = Field(alias="postInitApplicationSQL")


class _Bootstrap(_Strict):
    initdb: _First


class _Role(_Strict):
    name: str
    login: bool
    password_secret: _Named


class _Managed(_Strict):
    roles: list[_Role]


class _Size(_Strict):
    size: str


class _Affinity(_Strict):
    pod_anti_affinity_type: Literal["required", "preferred"]
    topology_key: str


class _Instances(_Strict):
    instances: int
    image_name: str
    postgresql: _Postgres
    bootstrap: _Bootstrap
    managed: _Managed
    storage: _Size
    wal_storage: _Size
    resources: _Resources
    affinity: _Affinity


class Cluster(_Resource):
    """A PostgreSQL with its standbys."""

    api_version: Literal["postgresql.cnpg.io/v1"]
    spec: _Instances


KINDS: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (
        ServiceMonitor, PrometheusRule, KafkaTopic, KafkaUser, KafkaNodePool, Kafka, Cluster,
    )
}  # fmt: skip
