SELECT
    hour,
    count(*) AS flights,
    count(*) FILTER (WHERE is_late) AS late
FROM {{ ref('stg_flights') }}
GROUP BY hour
