"""Executors that share no folders with the driver, for jobs that run as scripts."""


def isolate_executors(builder, folder):
    """Configure a session builder so that all executors have their HOME, HF_HOME and TMPDIR in ``folder``.

    The job starts when all executors are there, and no task may fail.
    """
    (folder / "tmp").mkdir(parents=True)
    return (
        builder.config("spark.executorEnv.HOME", str(folder))
        .config("spark.executorEnv.HF_HOME", str(folder / "hf"))
        .config("spark.executorEnv.TMPDIR", str(folder / "tmp"))
        .config("spark.task.maxFailures", "1")
        .config("spark.scheduler.minRegisteredResourcesRatio", "1.0")
        .config("spark.scheduler.maxRegisteredResourcesWaitingTime", "60s")
    )
