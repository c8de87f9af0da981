"""Is the model good enough to be published: its evaluation beside popularity and beside what is published."""

from __future__ import annotations

from pydantic import ValidationError

from recsys_ray.base.errors import PublishError, RecsysError
from recsys_ray.config import Config
from recsys_ray.data.config import KFold
from recsys_ray.evaluation import Report
from recsys_ray.models import MODELS
from recsys_ray.pipeline.measured import Measured
from recsys_ray.runs import publish as runs
from recsys_ray.runs.accuracy import PUBLISHED, Verdict, judge
from recsys_ray.runs.published import read_run

POPULARITY = "popularity"


class Judged(Measured):
    """A model beside those that it must not fall behind."""

    def judge(self) -> Verdict | None:
        """What the accuracy gate finds; None where it is off, or nothing was held out to judge by.

        Raises:
            PublishError: the model is worse, and ``runs.accuracy.override`` is not set.
        """
        settings, config = self.config.runs.accuracy, self.config
        if not settings.enabled or not config.has_split:
            return None
        if isinstance(config.data.split, KFold) and config.data.split.fold is None:
            self._say("accuracy: not judged, every fold is a run of its own; set data.split.fold for one")
            return None
        if not config.evaluation.bootstrap:
            self._say("accuracy: not judged, evaluation.bootstrap=0 leaves no interval to judge by")
            return None
        report, references = self.evaluated(), self._references()
        verdict = judge(report, references, settings)
        if verdict.reason is not None and not settings.override:
            raise PublishError(
                f"the model is not published: {verdict.reason}; LATEST stays as it was; "
                "runs.accuracy.override=true publishes it all the same"
            )
        if verdict.reason is not None:
            self._say(f"accuracy: overridden by runs.accuracy.override, though {verdict.reason}")
        return verdict

    def evaluated(self) -> Report:
        """What the model's lists are worth on the held-out part."""
        self._fit_models("train", self._evaluation_parts())
        lists = self._lists(self.config.model_name, "train")
        self._judged_with.append(str(lists.run))
        return self._measure(lists)

    def _references(self) -> dict[str, Report]:
        found = {}
        if self.config.model_name != POPULARITY:
            model = self.config.baselines().get(POPULARITY) or MODELS[POPULARITY]()
            run, found[POPULARITY] = self._beside(POPULARITY, model)
            self._judged_with.append(str(run))
        if (other := self._published()) is not None:
            found[PUBLISHED] = other.evaluated()
            self._judged_with += other._judged_with + [result["path"] for result in other._results.values()]
        return found

    def _published(self) -> Judged | None:
        """The model and the lists of the published run, to be made for the data of this one."""
        try:
            latest = runs.latest_run(self._recommendations)
            record = None if latest is None else read_run(latest)
        except RecsysError as error:
            self._say(f"accuracy: not compared with the published run, whose record can't be read: {error}")
            return None
        if record is None:
            return None
        try:
            changes = {name: record.config[name] for name in ("model", "recommend")}
            config = Config.model_validate(self.config.model_dump(mode="json") | changes)
        except (KeyError, ValidationError):
            self._say(f"accuracy: not compared with {record.run_id}: its settings are of another version")
            return None
        if (config.model, config.recommend) == (self.config.model, self.config.recommend):
            return None
        self.session.progress(f"accuracy: the settings of {record.run_id}, which is published, on the same data")
        other = Judged(config, self.session)
        other._prepared = self._prepared
        if "embed" in self._results:
            other._results["embed"] = self._results["embed"]
        return other

    def _say(self, message: str) -> None:
        self.session.progress(message)
