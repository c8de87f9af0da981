"""The settings of the service: the section ``serving`` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from recsys_ray.base.types import Settings
from recsys_ray.content.config import ImageSettings
from recsys_ray.evaluation.experiment.config import ExperimentSettings

Role = Literal["read", "admin"]
NAME = r"^[A-Za-z0-9_.-]{1,64}$"


class KeySettings(Settings):
    """One API key. The key itself is not kept, only its digest."""

    name: str = Field(pattern=NAME)
    """Who holds it, for people."""
    role: Role = "read"
    """admin may also switch models; read may do all the rest."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the key in hexadecimal: ``printf %s "$KEY" | sha256sum``. Use a long random key, not a password."""


class VariantSettings(Settings):
    """One arm of an experiment."""

    name: str = Field(pattern=NAME)
    """As answers and metrics show it."""
    weight: float = Field(default=1.0, ge=0)
    """Its share of the users, relative to the sum of all weights."""
    output: str | None = None
    """Output directory of the run that is served; by default that of this configuration."""
    run: str | None = None
    """Run id to stay on; by default whatever LATEST names."""


class CacheSettings(Settings):
    """Finished answers, kept for as long as nothing they depend on changes."""

    mib: int = Field(default=64, ge=0)
    """Bytes of answers kept by one process; 0 keeps none."""
    ttl_seconds: float = Field(default=300.0, gt=0)
    """Age at which an answer is made anew."""


class LimitSettings(Settings):
    """What one request may ask for, and how many are worked on at once."""

    rows: int = Field(default=1000, ge=1)
    """Largest offset + n."""
    users: int = Field(default=200, ge=1)
    """Users of one POST /v1/recommendations."""
    events: int = Field(default=2000, ge=1)
    """Interactions, ratings or item ids in one list of a request."""
    body_kib: int = Field(default=512, ge=1)
    """Size of a request's body."""
    id_length: int = Field(default=512, ge=1)
    """Characters of one id or search text."""
    in_flight: int = Field(default=256, ge=1)
    """Requests one process works on at once; more are answered 503 with Retry-After."""
    retry_after_seconds: int = Field(default=1, ge=1)
    """What Retry-After says."""
    answer_rows: int = Field(default=10_000, ge=1)
    """Largest users * (offset + n) of one request; with reasons a tenth of it."""
    arrival_seconds: float = Field(default=10.0, gt=0)
    """Time for the body of a request to arrive, and for its answer to be taken. A request counts as in flight only once
    it is there. The proxy cuts a connection that is silent for so long."""
    arriving_mib: int = Field(default=64, ge=1)
    """Bytes of bodies that have begun to arrive and are not complete; more are answered 503."""
    answer_seconds: float = Field(default=30.0, gt=0)
    """Time for an answer to be made, with all that it waits for; then it is 503."""
    refused_key_seconds: float = Field(default=0.5, ge=0)
    """How long the answer to a wrong key takes, so that keys can't be tried out."""


class BatchingSettings(Settings):
    """Requests that wait at the same moment are answered by one scoring call."""

    max_rows: int = Field(default=128, ge=1)
    """Histories in one call."""
    max_wait_ms: float = Field(default=0.0, ge=0)
    """How long the first of a batch waits for others. 0: a batch is what came while the one before was scored."""


class OnboardingSettings(Settings):
    """New users: the items they are offered to rate, and how long they are remembered."""

    items: int = Field(default=15, ge=1)
    """Items offered for rating."""
    pool: int = Field(default=300, ge=1)
    """The most popular items they are chosen from."""
    minimum: int = Field(default=5, ge=1)
    """Ratings a temporary user needs at least."""
    hours: float = Field(default=24.0, gt=0)
    """Life of a temporary user."""


class FeedbackSettings(Settings):
    """Interactions that users send."""

    roll_seconds: float = Field(default=60.0, gt=0)
    """How often accepted interactions become a Parquet file under <output>/feedback."""
    remember_days: float = Field(default=30.0, gt=0)
    """How long they count in answers; by then a batch run should have learned them."""
    unknown_items: Literal["drop", "keep"] = "drop"
    """Interactions with items that the catalogue of the run lacks. drop: they are counted in the answer and forgotten.
    keep: they go to the next batch run, whose catalogue gets an item without a title where it lacks it, too."""
    events_per_minute: int = Field(default=5_000, ge=1)
    """Of one user; more are answered 429."""
    events_per_minute_of_key: int = Field(default=500_000, ge=1)
    """Of one API key, or of all who call without one, at one process; more are answered 429."""
    events_per_day_of_item: int = Field(default=10_000, ge=1)
    """Of one item with one API key, or of all who call without one, at one process; more are answered 429. By so much
    one source can raise the popularity of an item, whatever users it makes up."""


class PersonaSettings(Settings):
    """A kind of user that is shown as an example: of the users of the data the one who fits best."""

    kind: Literal["genre", "longest", "critical"]
    """genre: most of the history in one genre. longest: the longest history. critical: the lowest ratings."""
    genre: str | int | None = None
    """For kind genre: its name, or its place among the genres of the catalogue, the one of most items being 1."""
    label: str | None = Field(default=None, min_length=1, max_length=100)
    """As the page shows it; by default "Drama fan", "Knows a lot" or "Strict critic"."""

    @model_validator(mode="after")
    def _one_genre(self) -> PersonaSettings:
        if (self.kind == "genre") != (self.genre is not None):
            raise ValueError("personas: genre goes with kind=genre, and with it alone")
        if isinstance(self.genre, int) and self.genre < 1:
            raise ValueError(f"personas: the places of genres begin with 1, found {self.genre}")
        return self


def _personas() -> list[PersonaSettings]:
    genres = [PersonaSettings(kind="genre", genre=place) for place in (1, 2)]
    return [*genres, PersonaSettings(kind="longest"), PersonaSettings(kind="critical")]


class ExposureSettings(Settings):
    """The journal of exposures: which variant showed which user what, for ``recsys-ray ab``."""

    items: int = Field(default=20, ge=1)
    """Leading items of a list that are written; only these can be liked because they were shown."""
    roll_seconds: float = Field(default=300.0, gt=0)
    """How often exposures become a Parquet file under <output>/exposures."""
    waiting: int = Field(default=50_000, ge=1)
    """Exposures one process holds in memory at most until they are on the disk, a second later; what comes while that
    many wait is counted and forgotten."""


class NarratorSettings(Settings):
    """A language model that rephrases explanations, behind an OpenAI-compatible address."""

    url: str = Field(pattern=r"^https?://")
    """Base address, such as http://127.0.0.1:8080/v1."""
    model: str
    """Name of the model there."""
    items: int = Field(default=5, ge=1, le=50)
    """Leading items of a list that get a text of its own; the others keep the template's."""
    key_variable: str | None = None
    """Environment variable that holds the key."""
    timeout_seconds: float = Field(default=3.0, gt=0)
    """After that the template's text is used."""
    max_tokens: int = Field(default=80, ge=1)
    """Length of one text."""
    profile: bool = True
    """Tell it what the user is like: top genres, last titles, number and mean of the ratings, a liking for recent or
    old, popular or niche items. Without it users of the same reasons share texts."""
    input_price: float = Field(default=0.0, ge=0)
    """Price of 1,000 input tokens, in any currency."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of 1,000 output tokens."""
    daily_limit: float | None = Field(default=None, ge=0)
    """What texts may cost on one day of UTC, in the unit of the prices; then the template's text is used. It holds for
    all processes of a machine, and with serving.redis for all machines. null sets no limit."""
    cache_hours: float = Field(default=24.0, gt=0)
    """How long a text is kept."""

    @model_validator(mode="after")
    def _limit_has_prices(self) -> NarratorSettings:
        if self.daily_limit is not None and not self.input_price + self.output_price:
            raise ValueError("serving.narrator.daily_limit needs serving.narrator.input_price and output_price")
        return self


class DeploymentSettings(Settings):
    """The Ray Serve deployment."""

    replicas: int = Field(default=1, ge=1)
    """Processes that answer."""
    max_replicas: int | None = Field(default=None, ge=1)
    """Set it to let Serve add replicas under load, up to this many."""
    target_ongoing_requests: int = Field(default=32, ge=1)
    """Load per replica that autoscaling aims at."""
    cpus: float = Field(default=1.0, gt=0)
    """Cores reserved for a replica."""
    haproxy: bool = True
    """Serve's HAProxy mode: the proxy of every node is HAProxy, which talks to the replicas directly."""
    throughput_optimized: bool = True
    """Serve's settings for throughput."""
    proxies: Literal["HeadOnly", "EveryNode"] = "HeadOnly"
    """Where proxies listen."""

    @model_validator(mode="after")
    def _at_least(self) -> DeploymentSettings:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"serving.deployment.max_replicas={self.max_replicas} is below "
                f"serving.deployment.replicas={self.replicas}"
            )
        return self


class ServingSettings(Settings):
    """The online service."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    hosts: list[str] | None = None
    """Names that callers may use for the service, as they stand in the header Host, without a port; "*" for all. By
    default localhost and the loopback addresses where ``host`` is one of them, so that no page of another name can
    reach it through a browser; else all."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    follow_latest: bool = True
    """Switch by itself when a run is published; the run before stays loaded for a roll-back. Without it the service
    stays on the run that it started with first, over restarts too, until another is activated."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """How often LATEST and the activated run are looked at: what a switch takes to reach every replica."""
    variants: list[VariantSettings] = Field(default_factory=lambda: [VariantSettings(name="default")], min_length=1)
    """Arms of an experiment; one alone means none."""
    salt: str = "recsys_ray"
    """Another salt spreads the users anew over the variants."""
    exposures: ExposureSettings | None = None
    """Journal what the variants show, for ``recsys-ray ab``; null journals nothing."""
    experiment: ExperimentSettings = ExperimentSettings()
    """How ``recsys-ray ab`` judges the variants; the service reads nothing of it."""
    user_cache_mib: int = Field(default=256, ge=1)
    """Bytes of user histories one process keeps of each run."""
    state: str | None = None
    """Local directory of what users sent; by default <output>/serving, which must be local then. Processes of one
    machine share it."""
    redis: str | None = None
    """Address of a Redis (redis://host:port/0) that all machines share: cached answers, and what users sent."""
    cache: CacheSettings = CacheSettings()
    batching: BatchingSettings = BatchingSettings()
    limits: LimitSettings = LimitSettings()
    onboarding: OnboardingSettings = OnboardingSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    keys: list[KeySettings] = Field(default_factory=list)
    """API keys. Without keys reading is open and admin calls are refused; with some every call but health checks needs
    one."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins whose pages may call from a browser; none by default."""
    demo_users: int = Field(default=4, ge=0)
    """Most users of the data shown as examples on the page; 0 shows none."""
    image: ImageSettings | None = None
    """Where posters are and which of them are read; by default as content.image."""
    personas: list[PersonaSettings] = Field(default_factory=_personas)
    """Which users these are; by default fans of the two largest genres, who knows a lot, and a strict critic."""
    narrator: NarratorSettings | None = None
    """Rephrases explanations by a language model; by default the template's text stands."""
    threads: int = Field(default=1, ge=1)
    """Threads of one process for scoring."""
    deployment: DeploymentSettings = DeploymentSettings()

    @field_validator("variants")
    @classmethod
    def _distinct(cls, variants: list[VariantSettings]) -> list[VariantSettings]:
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise ValueError(f"serving.variants: names must differ, found {', '.join(names)}")
        if sum(variant.weight for variant in variants) <= 0:
            raise ValueError("serving.variants: the weights add up to 0; give one of them a share")
        return variants

    @model_validator(mode="after")
    def _control_is_a_variant(self) -> ServingSettings:
        control, names = self.experiment.control, [variant.name for variant in self.variants]
        if control is not None and control not in names:
            raise ValueError(f"serving.experiment.control={control} is none of serving.variants: {', '.join(names)}")
        return self

    @field_validator("keys")
    @classmethod
    def _one_holder(cls, keys: list[KeySettings]) -> list[KeySettings]:
        names = [key.name for key in keys]
        if len(set(names)) < len(names):
            raise ValueError(f"serving.keys: names must differ, found {', '.join(names)}")
        return keys
