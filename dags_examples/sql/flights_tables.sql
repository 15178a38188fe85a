CREATE SCHEMA IF NOT EXISTS nycflights;

CREATE TABLE IF NOT EXISTS nycflights.airlines (carrier text PRIMARY KEY, name text NOT NULL);

CREATE TABLE IF NOT EXISTS nycflights.airports (
    faa text PRIMARY KEY,
    name text NOT NULL,
    lat double precision NOT NULL,
    lon double precision NOT NULL,
    alt integer NOT NULL,
    tz integer NOT NULL,
    dst text NOT NULL,
    tzone text
);

CREATE TABLE IF NOT EXISTS nycflights.planes (
    tailnum text PRIMARY KEY,
    year integer,
    type text NOT NULL,
    manufacturer text NOT NULL,
    model text NOT NULL,
    engines integer NOT NULL,
    seats integer NOT NULL,
    speed integer,
    engine text NOT NULL
);

CREATE TABLE IF NOT EXISTS nycflights.weather (
    origin text NOT NULL,
    year integer NOT NULL,
    month integer NOT NULL,
    day integer NOT NULL,
    hour integer NOT NULL,
    temp double precision,
    dewp double precision,
    humid double precision,
    wind_dir integer,
    wind_speed double precision,
    wind_gust double precision,
    precip double precision,
    pressure double precision,
    visib double precision,
    time_hour timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS nycflights.flights (
    year integer NOT NULL,
    month integer NOT NULL,
    day integer NOT NULL,
    dep_time integer,
    sched_dep_time integer NOT NULL,
    dep_delay integer,
    arr_time integer,
    sched_arr_time integer NOT NULL,
    arr_delay integer,
    carrier text NOT NULL,
    flight integer NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL,
    air_time integer,
    distance integer NOT NULL,
    hour integer NOT NULL,
    minute integer NOT NULL,
    time_hour timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS nycflights.delays (
    carrier text NOT NULL,
    airline text NOT NULL,
    hour integer NOT NULL,
    flights bigint NOT NULL,
    departed bigint NOT NULL,
    late bigint NOT NULL,
    departure_delay_minutes double precision,
    wind_speed_mph double precision,
    PRIMARY KEY (carrier, hour)
);
