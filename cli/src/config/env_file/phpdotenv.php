<?php

// Writes what vlucas/phpdotenv makes of each file in phpdotenv.json into phpdotenv.json, or with --check fails when that
// differs. Needs PHP and the library: Debian's php-vlucas-phpdotenv, or another one whose autoload.php
// PHPDOTENV_AUTOLOAD names. Exit code 3: PHP has no such library.

declare(strict_types=1);

use Dotenv\Dotenv;
use Dotenv\Exception\InvalidFileException;
use Dotenv\Repository\Adapter\ArrayAdapter;
use Dotenv\Repository\RepositoryBuilder;

$autoload = getenv('PHPDOTENV_AUTOLOAD') ?: 'Dotenv/autoload.php';
if (stream_resolve_include_path($autoload) === false) {
    exit(3);
}
require $autoload;

/** Returns the variables that are set after the file was read, or null when the library refuses the file. */
function values(string $text, array $environment): ?array
{
    $variables = ArrayAdapter::create()->get();
    foreach ($environment as $name => $value) {
        $variables->write($name, $value);
    }
    $builder = RepositoryBuilder::createWithNoAdapters()->addAdapter($variables);
    // Laravel's repository never overwrites a variable of the process.
    $repository = $builder->immutable()->make();
    $file = tempnam(sys_get_temp_dir(), 'phpdotenv');
    file_put_contents($file, $text);
    try {
        $read = Dotenv::create($repository, dirname($file), basename($file))->load();
    } catch (InvalidFileException) {
        return null;
    } finally {
        unlink($file);
    }
    $values = [];
    foreach (array_keys($read) as $name) {
        $value = $repository->get($name);
        if ($value !== null) {
            $values[$name] = $value;
        }
    }
    return $values;
}

$path = __DIR__ . '/phpdotenv.json';
$before = file_get_contents($path);
$table = json_decode($before, true, flags: JSON_THROW_ON_ERROR);
$flags = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR;
$rows = [];
foreach ($table['files'] as $row) {
    $values = values($row['file'], $table['environment']);
    $rows[] = json_encode(['file' => $row['file'], 'values' => $values === null ? null : (object) $values], $flags);
}
$environment = json_encode($table['environment'], $flags);
$after = "{\"environment\":$environment,\n\"files\":[\n" . implode(",\n", $rows) . "\n]}\n";
if (in_array('--check', $argv, true)) {
    exit($after === $before ? 0 : 1);
}
file_put_contents($path, $after);
