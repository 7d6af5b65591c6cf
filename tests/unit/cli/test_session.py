"""How the command line ends a session."""

import warnings

from spark_instructor.cli.session import cancel_jobs


def test_a_jvm_that_does_not_answer(recwarn):
    """The end of a command is one line, so pyspark's warning about a JVM that it could not stop is left out."""

    class Session:
        def stop(self):
            warnings.warn(
                "Unable to cleanly shutdown Spark JVM process. It may have crashed.", RuntimeWarning, stacklevel=2
            )
            self.stopped = True

    session = Session()
    cancel_jobs(session)
    assert session.stopped and not recwarn.list
