{{ config(materialized='view') }}

SELECT
    flights.carrier,
    airlines.name AS airline,
    flights.hour,
    flights.dep_delay AS departure_delay_minutes,
    coalesce(flights.dep_delay > 15, false) AS is_late
FROM {{ ref('flights') }} AS flights
JOIN {{ ref('airlines') }} AS airlines USING (carrier)
