"""Where trainings run: what an executor promises (`protocol`), which there are (`build`), the one of this machine."""
