#!/usr/bin/env bash
# Counts the words in comments that hide the subject of a sentence, and fails above a limit a 1,000 words:
#
#     scripts/prose.sh [-v] [FILE ...]
#
# who, whoever, whom, whose: 0.7; what: 3.0; somebody, no one, everyone, anybody and the like: 0.7.
# Without files: all of src, benches, tests and examples. With -v also a line for each file, and each public
# function whose doc does not begin with a verb.
#
# Counted is the text of `//`, `///` and `//!`, trailing comments too. Not counted are fenced blocks of doc comments,
# and the targets of links. A code span is one word.
set -euo pipefail
cd "$(dirname "$0")/.."

verbose=0
if [ "${1:-}" = -v ]; then
    verbose=1
    shift
fi
if [ $# -eq 0 ]; then
    mapfile -t files < <(find src benches tests examples -name target -prune -o -name '*.rs' -print | LC_ALL=C sort)
    set -- "${files[@]}"
fi

VERBOSE=$verbose exec perl -e '
use strict;
use warnings;

my @names = ("who", "what", "somebody");
my %limit = (who => 0.7, what => 3.0, somebody => 0.7);
my %pattern = (
    who => qr/\b(?:who|whoever|whom|whomever|whose)\b/i,
    what => qr/\bwhat\b/i,
    somebody => qr/\b(?:(?:some|no|every|any)body|(?:some|every|any)one|no[ -]one)\b/i,
);
# First words that end like a verb in the third person and are none.
my %no_verb = map { $_ => 1 } qw(
    As This Its Is Was Whose Always Less Plus Perhaps Sometimes Others Nanoseconds Seconds Bytes Bits
    Entries Fills Hits Keys Misses Settings Tasks Threads Times Values Words
);

sub rate { my ($count, $words) = @_; return $words ? 1000 * $count / $words : 0 }

sub line {
    my ($name, $at) = @_;
    return sprintf("%-34s %6d words, a 1,000 of them:", $name, $at->{words})
        . join(",", map { sprintf(" %s %.1f (%d)", $_, rate($at->{$_}, $at->{words}), $at->{$_}) } @names);
}

# The words of a piece of prose, counted into `at`.
sub count {
    my ($text, $at) = @_;
    $text =~ s/``.*?``|`[^`]*`/ code /gs;       # a code span is one word
    $text =~ s/\]\([^)]*\)/]/g;                 # the target of a link
    $text =~ s/^\s*\[[^\]]+\]:.*$//gm;          # a reference of a link
    $at->{words} += () = $text =~ /[A-Za-z]+(?:\x27[a-z]+)?/g;
    $at->{$_} += () = $text =~ /$pattern{$_}/g for @names;
}

my (%total, @bad);
my ($functions, $no_verb, $as_or_see) = (0, 0, 0);
$total{$_} = 0 for "words", @names;

for my $file (@ARGV) {
    open(my $source, "<", $file) or die "$file: $!\n";
    my %at = map { $_ => 0 } "words", @names;
    my ($run, $kind, $fenced) = ("", "", 0);    # of comment lines of one kind
    my $doc = "";                               # of the item that comes
    while (my $line = <$source>) {
        if ($line =~ m{^\s*(//[/!]?)(.*)$}) {
            my ($sort, $text) = ($1, $2);
            if ($sort ne $kind) {
                count($run, \%at);
                ($run, $kind, $fenced) = ("", $sort, 0);
                $doc = "" if $sort ne "//";
            }
            if ($sort ne "//" && $text =~ /^\s*```/) {
                $fenced = !$fenced;
            } elsif (!$fenced) {
                $run .= "$text\n";
                $doc .= "$text\n" if $sort eq "///";
            }
            next;
        }
        count($run, \%at);
        ($run, $kind, $fenced) = ("", "", 0);
        # A comment behind code; not a `//` in a text.
        (my $code = $line) =~ s/"(?:\\.|[^"\\])*"/""/g;
        count($1, \%at) if $code =~ m{//(.*)$};
        if (my ($name) = $line =~ /^\s*(?:pub|\$vis)\s+(?:(?:const|async|unsafe)\s+)*fn\s+(\w+)/) {
            next unless $doc =~ /\S/;
            $functions += 1;
            my ($first) = $doc =~ /^[\s\[*]*([A-Za-z\x27]+|\S+)/;
            $as_or_see += 1 if $first =~ /^(?:As|See)$/;
            if ($first !~ /^[A-Z][a-z]+s$/ || $no_verb{$first}) {
                $no_verb += 1;
                push @bad, "$file:$.: $name: $first ..";
            }
        }
        $doc = "" unless $line =~ /^\s*(?:#!?\[|\$\(\$|$)/;
    }
    count($run, \%at);
    close($source);
    $total{$_} += $at{$_} for "words", @names;
    print line($file, \%at), "\n" if $ENV{VERBOSE};
}
if ($ENV{VERBOSE}) {
    print "$_\n" for @bad;
}
print line("all", \%total), "\n";
printf "public functions with a doc: %d; not begun with a verb: %d; begun with As or See: %d\n",
    $functions, $no_verb, $as_or_see;
my @above = grep { rate($total{$_}, $total{words}) > $limit{$_} } @names;
print "above its limit: ", join(", ", map { "$_ (at most $limit{$_})" } @above), "\n" if @above;
exit(@above ? 1 : 0);
' -- "$@"
