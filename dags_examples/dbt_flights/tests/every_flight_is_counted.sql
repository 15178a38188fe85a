SELECT counted.flights
FROM (SELECT sum(flights) AS flights FROM {{ ref('delays_by_airline') }}) AS counted
WHERE counted.flights <> (SELECT count(*) FROM {{ ref('flights') }})
