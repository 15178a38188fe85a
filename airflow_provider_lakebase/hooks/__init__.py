from airflow_provider_lakebase.exceptions import LakebaseError
from airflow_provider_lakebase.hooks._words import AIRFLOW_WORDS

# Whatever an Airflow process raises comes through here, also from the core.
LakebaseError.words = AIRFLOW_WORDS
