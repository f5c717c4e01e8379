"""Extensions of doit: stages, their state, the run cache and the reporter."""
