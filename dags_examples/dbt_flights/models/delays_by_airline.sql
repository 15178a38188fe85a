SELECT
    carrier,
    airline,
    count(*) AS flights,
    count(departure_delay_minutes) AS departed,
    count(*) FILTER (WHERE is_late) AS late,
    round(avg(departure_delay_minutes), 1) AS mean_delay_minutes
FROM {{ ref('stg_flights') }}
GROUP BY carrier, airline
