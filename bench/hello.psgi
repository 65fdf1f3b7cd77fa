# hello.py for servers of Perl.

use strict;
use warnings;

my $body = "Hello, world!\n";

sub {
    return [200, ["Content-Type" => "text/plain", "Content-Length" => length $body], [$body]];
};
