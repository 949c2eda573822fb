#!/bin/sh
# How DVC starts a stage: `sh stages/run.sh extract low` is `python -m stages.extract low`, with the
# project's .venv where there is one (also from DVC's temporary experiment folders, which lie in the
# project), so that dvc works whether or not the environment is active; else with the python on the PATH.
python="${PWD%%/.dvc/tmp/exps/*}/.venv/bin/python"
[ -x "$python" ] || python=python
stage=$1
shift
exec "$python" -m "stages.$stage" "$@"
