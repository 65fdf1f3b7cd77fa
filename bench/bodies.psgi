# bodies.py for servers of Perl: APP in the environment says which, as "bodies:post".

use strict;
use warnings;
use JSON::XS;

my $step  = 64 * 1024;
my %bytes;

sub bytes { my $length = shift; return $bytes{$length} //= "0123456789abcdef" x ($length / 16) }

sub answered {
    my ($kind, $body) = @_;
    return [200, ["Content-Type" => $kind, "Content-Length" => length $body], [$body]];
}

my %apps = (
    "bodies:post" => sub {
        my $env = shift;
        $env->{"psgi.input"}->read(my $text, $env->{CONTENT_LENGTH} || 0);
        my $lines = $text ? decode_json($text)->{lines} : [];
        my $sum   = 0;
        $sum += $_->{quantity} * $_->{cents} for @$lines;
        return answered("application/json", encode_json({ lines => scalar @$lines, sum => $sum }));
    },
    "bodies:upload" => sub {
        my $env    = shift;
        my $length = $env->{CONTENT_LENGTH} || 0;
        my $left   = $length;
        while ($left and my $read = $env->{"psgi.input"}->read(my $data, $left < $step ? $left : $step)) {
            $left -= $read;
        }
        return answered("text/plain", $length - $left . "\n");
    },
    "bodies:kib64"  => sub { answered("application/octet-stream", bytes(64 * 1024)) },
    "bodies:mib10"  => sub { answered("application/octet-stream", bytes(10 * 1024 * 1024)) },
    "bodies:stream" => sub {
        return sub {
            my $writer = shift->([200, ["Content-Type" => "application/octet-stream"]]);
            $writer->write(bytes(4096)) for 1 .. 16;
            $writer->close;
        };
    },
);

$apps{ $ENV{APP} } or die "APP=$ENV{APP}: must be one of @{[ sort keys %apps ]}\n";
