-- One transaction: readers see the old delays until the new ones are complete.
DELETE FROM nycflights.delays;

INSERT INTO nycflights.delays
SELECT
    flights.carrier,
    airlines.name,
    flights.hour,
    count(*),
    count(flights.dep_delay),
    count(*) FILTER (WHERE flights.dep_delay > 15),
    avg(flights.dep_delay),
    avg(weather.wind_speed)
FROM nycflights.flights
JOIN nycflights.airlines USING (carrier)
LEFT JOIN (
    SELECT origin, time_hour, avg(wind_speed) AS wind_speed FROM nycflights.weather GROUP BY origin, time_hour
) AS weather ON weather.origin = flights.origin AND weather.time_hour = flights.time_hour
GROUP BY flights.carrier, airlines.name, flights.hour;
