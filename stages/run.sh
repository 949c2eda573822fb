#!/bin/sh
# How DVC starts a stage: `sh stages/run.sh extract low` is `python -m stages.extract low`, with the
# project's .venv where there is one (found from DVC's temporary experiment folders as well), so that
# dvc works whether or not the environment is active; else with the python on the PATH.
folder=$PWD
while [ ! -x "$folder/.venv/bin/python" ] && [ "$folder" != / ]; do
    folder=$(dirname "$folder")
done
python="$folder/.venv/bin/python"
[ -x "$python" ] || python=python
stage=$1
shift
exec "$python" -m "stages.$stage" "$@"
